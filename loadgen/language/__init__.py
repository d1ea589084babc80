"""JavaScript's values and Artillery's small languages: templates, expressions, regular expressions. Pure."""
