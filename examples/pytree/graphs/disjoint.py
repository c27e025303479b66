# Disjoint sets with union by size, and the cheapest spanning tree.


class DisjointSets:
    def __init__(self, items=()):
        self.parent = {}
        self.size = {}
        for item in items:
            self.add(item)

    def add(self, item):
        if item in self.parent:
            return False
        self.parent[item] = item
        self.size[item] = 1
        return True

    def find(self, item):
        root = item
        while self.parent[root] != root:
            root = self.parent[root]
        while self.parent[item] != root:
            self.parent[item], item = root, self.parent[item]
        return root

    def union(self, left, right):
        left, right = self.find(left), self.find(right)
        if left == right:
            return False
        if self.size[left] < self.size[right]:
            left, right = right, left
        self.parent[right] = left
        self.size[left] += self.size[right]
        return True

    def together(self, left, right):
        if left not in self.parent or right not in self.parent:
            return False
        return self.find(left) == self.find(right)

    def groups(self, smallest=1):
        members = {}
        for item in self.parent:
            members.setdefault(self.find(item), []).append(item)
        kept = []
        for group in members.values():
            if len(group) >= smallest:
                kept.append(sorted(group))
        return sorted(kept)


def spanning_tree(nodes, edges):
    sets = DisjointSets(nodes)
    chosen = []
    for cost, left, right in sorted(edges):
        if sets.union(left, right):
            chosen.append((cost, left, right))
        if len(chosen) == len(nodes) - 1:
            break
    return chosen


def tree_cost(nodes, edges):
    chosen = spanning_tree(nodes, edges)
    if len(chosen) < len(nodes) - 1:
        return None
    return sum(cost for cost, _, _ in chosen)
