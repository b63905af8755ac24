"""Values that cross a process, a file or the wire, each with its encoder and decoder. No I/O happens here."""
