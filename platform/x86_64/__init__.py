"""Everything that depends on x86-64: registers, the XSAVE area, signal frames, CPU features."""
