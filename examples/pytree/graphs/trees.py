# Trees given as a mapping from each child to its parent; the root has None.


def root_of(parents):
    found = None
    for node, parent in parents.items():
        if parent is None:
            if found is not None:
                raise ValueError("more than one root")
            found = node
    return found


def children_of(parents, node):
    children = []
    for child, parent in parents.items():
        if parent == node:
            children.append(child)
    return sorted(children)


def depth_of(parents, node):
    depth = 0
    while parents[node] is not None:
        node = parents[node]
        depth += 1
    return depth


def ancestors(parents, node, include_self=False):
    chain = [node] if include_self else []
    node = parents.get(node)
    while node is not None:
        chain.append(node)
        node = parents.get(node)
    return chain


def common_ancestor(parents, left, right):
    seen = ancestors(parents, left, True)
    for node in ancestors(parents, right, True):
        if node in seen:
            return node
    return None


def subtree_size(parents, node):
    size = 1
    for child in children_of(parents, node):
        size += subtree_size(parents, child)
    return size


def preorder(parents, node):
    order = [node]
    for child in children_of(parents, node):
        order.extend(preorder(parents, child))
    return order


def move(parents, node, target):
    if parents.get(node) is None:
        raise ValueError("the root cannot be moved")
    if node in ancestors(parents, target, True):
        return False
    parents[node] = target
    return True


def render(parents, node, level=0):
    lines = ["  " * level + str(node)]
    for child in children_of(parents, node):
        lines += render(parents, child, level + 1)
    return lines


def height(parents):
    if not parents:
        return 0
    return max(depth_of(parents, node) for node in parents) + 1
