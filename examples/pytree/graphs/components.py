# Which nodes hang together in an undirected graph.


def reachable(graph, start):
    seen = {start}
    stack = [start]
    while stack:
        node = stack.pop()
        for neighbour in graph.get(node, ()):
            if neighbour not in seen:
                seen.add(neighbour)
                stack.append(neighbour)
    return seen


def components(graph):
    groups = []
    placed = set()
    for node in sorted(graph):
        if node in placed:
            continue
        group = reachable(graph, node)
        placed |= group
        groups.append(sorted(group))
    return groups


def is_connected(graph):
    if not graph:
        return True
    first = next(iter(graph))
    return len(reachable(graph, first)) == len(graph)


def largest_component(graph):
    best = []
    for group in components(graph):
        if len(group) > len(best):
            best = group
    return best


def without_edge(graph, left, right):
    result = {}
    for node, neighbours in graph.items():
        banned = right if node == left else left if node == right else None
        result[node] = [other for other in neighbours if other != banned]
    return result


def bridges(graph):
    found = []
    for node in sorted(graph):
        for neighbour in sorted(graph[node]):
            if node >= neighbour:
                continue
            cut = without_edge(graph, node, neighbour)
            if neighbour not in reachable(cut, node):
                found.append((node, neighbour))
    return found


def two_colors(graph):
    colors = {}
    for group in components(graph):
        colors[group[0]] = 0
        stack = [group[0]]
        while stack:
            node = stack.pop()
            if not paint(graph, node, colors, stack):
                return None
    return colors


def paint(graph, node, colors, stack):
    for neighbour in graph[node]:
        if neighbour not in colors:
            colors[neighbour] = 1 - colors[node]
            stack.append(neighbour)
        elif colors[neighbour] == colors[node]:
            return False
    return True
