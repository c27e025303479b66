# Shortest paths; a weighted graph maps a node to {neighbour: cost}.


def hops(graph, start):
    distance = {start: 0}
    queue = [start]
    while queue:
        node = queue.pop(0)
        for neighbour in graph.get(node, ()):
            if neighbour not in distance:
                distance[neighbour] = distance[node] + 1
                queue.append(neighbour)
    return distance


def nearest_open(distance, closed):
    best = None
    for node in distance:
        if node in closed:
            continue
        if best is None or distance[node] < distance[best]:
            best = node
    return best


def relax(graph, node, distance, previous):
    for neighbour, cost in graph.get(node, {}).items():
        if cost < 0:
            raise ValueError("costs must not be negative")
        candidate = distance[node] + cost
        if neighbour not in distance or candidate < distance[neighbour]:
            distance[neighbour] = candidate
            previous[neighbour] = node


def dijkstra(graph, start, goal=None):
    distance = {start: 0}
    previous = {}
    closed = set()
    node = start
    while node is not None and node != goal:
        closed.add(node)
        relax(graph, node, distance, previous)
        node = nearest_open(distance, closed)
    return distance, previous


def trace_back(previous, start, goal):
    path = [goal]
    while path[-1] != start:
        step = previous.get(path[-1])
        if step is None:
            return None
        path.append(step)
    path.reverse()
    return path


def shortest_path(graph, start, goal):
    if start == goal:
        return [start]
    _, previous = dijkstra(graph, start, goal)
    return trace_back(previous, start, goal)


def path_cost(graph, path):
    total = 0
    for source, target in zip(path, path[1:]):
        cost = graph.get(source, {}).get(target)
        if cost is None:
            return None
        total += cost
    return total


def eccentricity(graph, node):
    distance, _ = dijkstra(graph, node)
    if len(distance) < len(graph):
        return None
    return max(distance.values())
