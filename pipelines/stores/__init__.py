"""Where objects go: files, memory, object stores behind one narrow interface; one suite of tests holds its promises over all of them."""
