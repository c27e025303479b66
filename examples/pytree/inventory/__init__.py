# Goods on shelves: counting, reserving and ordering them.
