"""The actor runtime: loop, node, the actor base and the passing of descriptors."""
