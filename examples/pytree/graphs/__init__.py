# Graphs as dictionaries from a node to its neighbours.
