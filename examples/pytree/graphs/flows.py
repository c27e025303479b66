# Largest flow through a network of pipes; capacities[(a, b)] is a number.


def nodes_of(capacities):
    nodes = set()
    for source, target in capacities:
        nodes.add(source)
        nodes.add(target)
    return sorted(nodes)


def residual(capacities, flow, source, target):
    room = capacities.get((source, target), 0)
    used = flow.get((source, target), 0)
    returned = flow.get((target, source), 0)
    return room - used + returned


def find_route(capacities, flow, start, goal):
    previous = {start: None}
    queue = [start]
    while queue and goal not in previous:
        node = queue.pop(0)
        for other in nodes_of(capacities):
            if other not in previous and residual(capacities, flow, node, other) > 0:
                previous[other] = node
                queue.append(other)
    return route_from(previous, goal)


def route_from(previous, goal):
    if goal not in previous:
        return None
    route = [goal]
    while previous[route[0]] is not None:
        route.insert(0, previous[route[0]])
    return route


def bottleneck(capacities, flow, route):
    smallest = None
    for source, target in zip(route, route[1:]):
        room = residual(capacities, flow, source, target)
        if smallest is None or room < smallest:
            smallest = room
    return smallest


def push(flow, route, amount):
    for source, target in zip(route, route[1:]):
        back = min(flow.get((target, source), 0), amount)
        if back > 0:
            flow[(target, source)] -= back
        if amount > back:
            flow[(source, target)] = flow.get((source, target), 0) + amount - back


def max_flow(capacities, start, goal):
    if start == goal:
        raise ValueError("start and goal must differ")
    flow = {}
    route = find_route(capacities, flow, start, goal)
    while route is not None:
        push(flow, route, bottleneck(capacities, flow, route))
        route = find_route(capacities, flow, start, goal)
    return flow


def flow_value(flow, start):
    total = 0
    for (source, target), amount in flow.items():
        if source == start:
            total += amount
        elif target == start:
            total -= amount
    return total
