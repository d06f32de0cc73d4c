"""One module for each kind of output; each turns files of one folder into sections.

A reader is given a :class:`gfsim.report.folder.Folder`, the names of its files and what was read from them;
it raises :class:`gfsim.errors.InvalidInput`, naming the file, for a record that is not of its kind after all.
"""
