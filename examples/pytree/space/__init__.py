# Points, boxes, lines and grids in the plane.
