"""Tables as people have them: files, their columns, which is the label, and what to leave out."""
