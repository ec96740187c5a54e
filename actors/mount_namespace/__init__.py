"""MountNamespace: the tree of names, inodes and mounts of one sandbox."""
