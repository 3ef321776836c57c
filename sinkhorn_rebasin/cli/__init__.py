"""The command ``sinkhorn-rebasin``: files in, files out. One file a verb in ``verbs``; read ``main`` first."""
