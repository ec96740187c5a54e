"""The actors: one folder each, and the runtime that schedules them."""
