# Directed graphs: building, reversing and ordering them.


def add_edge(graph, source, target):
    targets = graph.setdefault(source, [])
    graph.setdefault(target, [])
    if target not in targets:
        targets.append(target)


def from_edges(edges, both_ways=False):
    graph = {}
    for source, target in edges:
        add_edge(graph, source, target)
        if both_ways:
            add_edge(graph, target, source)
    return graph


def reverse(graph):
    result = {node: [] for node in graph}
    for source in graph:
        for target in graph[source]:
            add_edge(result, target, source)
    return result


def in_degrees(graph):
    degrees = {node: 0 for node in graph}
    for targets in graph.values():
        for target in targets:
            degrees[target] += 1
    return degrees


def topological_order(graph):
    degrees = in_degrees(graph)
    ready = [node for node in graph if degrees[node] == 0]
    order = []
    while ready:
        node = ready.pop(0)
        order.append(node)
        for target in graph[node]:
            degrees[target] -= 1
            if degrees[target] == 0:
                ready.append(target)
    return order


def has_cycle(graph):
    ordered = topological_order(graph)
    if not graph:
        return False
    return len(ordered) < len(graph)


def layers(graph):
    depth = {}
    for node in topological_order(graph):
        depth.setdefault(node, 0)
        for target in graph[node]:
            depth[target] = max(depth.get(target, 0), depth[node] + 1)
    return depth


def sources_and_sinks(graph):
    degrees = in_degrees(graph)
    sources = [node for node in graph if degrees[node] == 0]
    sinks = [node for node in graph if not graph[node]]
    return sources, sinks


def remove_node(graph, node):
    if node not in graph:
        return False
    del graph[node]
    for targets in graph.values():
        if node in targets:
            targets.remove(node)
    return True
