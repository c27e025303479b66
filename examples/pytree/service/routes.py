# Matching request paths against patterns such as /users/:id.


def split_path(path):
    parts = []
    for part in path.split("/"):
        if part:
            parts.append(part)
    return parts


def match_parts(pattern, parts):
    if len(pattern) != len(parts):
        return None
    values = {}
    for expected, part in zip(pattern, parts):
        if expected.startswith(":"):
            values[expected[1:]] = part
        elif expected != part:
            return None
    return values


def specificity(pattern):
    score = 0
    for part in split_path(pattern):
        if not part.startswith(":"):
            score += 1
    return score


class Router:
    def __init__(self, prefix=""):
        self.prefix = prefix
        self.routes = []

    def add(self, method, pattern, handler):
        full = self.prefix + pattern
        for other_method, other, _ in self.routes:
            if other_method == method and other == full:
                raise ValueError("route exists: " + full)
        self.routes.append((method, full, handler))
        self.routes.sort(key=lambda route: -specificity(route[1]))

    def resolve(self, method, path):
        parts = split_path(path)
        for route_method, pattern, handler in self.routes:
            if route_method != method:
                continue
            values = match_parts(split_path(pattern), parts)
            if values is not None:
                return handler, values
        return None, {}

    def allowed(self, path):
        methods = []
        parts = split_path(path)
        for method, pattern, _ in self.routes:
            if match_parts(split_path(pattern), parts) is None:
                continue
            if method not in methods:
                methods.append(method)
        return sorted(methods)

    def dispatch(self, method, path):
        handler, values = self.resolve(method, path)
        if handler is not None:
            return 200, handler(values)
        if self.allowed(path):
            return 405, None
        return 404, None


def fill_path(pattern, values):
    parts = []
    for part in split_path(pattern):
        if part.startswith(":"):
            part = str(values[part[1:]])
        parts.append(part)
    return "/" + "/".join(parts)
