# Working with plain text: wrapping, cases, tables, search.
