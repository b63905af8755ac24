"""What is looked at before a long run: the machine, the folders, the destination, the key and the node."""
