"""What nearcore's peers say to each other, byte for byte: values and messages. Nothing here connects, signs or verifies."""
