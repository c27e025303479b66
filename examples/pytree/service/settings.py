# Settings in layers: defaults, then a file, then what the user said.


class Settings:
    def __init__(self, defaults):
        self.defaults = defaults
        self.layers = []
        self.frozen = False

    def add_layer(self, name, values, strict=True):
        if self.frozen:
            raise ValueError("settings are frozen")
        for key in values:
            if strict and key not in self.defaults:
                raise KeyError("unknown setting: " + key)
        self.layers.append((name, dict(values)))

    def get(self, key):
        for _, values in reversed(self.layers):
            if key in values:
                return values[key]
        return self.defaults[key]

    def origin(self, key):
        for name, values in reversed(self.layers):
            if key in values:
                return name
        return "default"

    def number(self, key, low=None, high=None):
        value = int(self.get(key))
        if low is not None and value < low:
            raise ValueError("%s must be at least %s" % (key, low))
        if high is not None and value > high:
            raise ValueError("%s must be at most %s" % (key, high))
        return value

    def changed(self):
        keys = []
        for key in sorted(self.defaults):
            if self.get(key) != self.defaults[key]:
                keys.append(key)
        return keys

    def dump(self, hidden=()):
        lines = []
        for key in sorted(self.defaults):
            value = "***" if key in hidden else self.get(key)
            lines.append("%s = %s (%s)" % (key, value, self.origin(key)))
        return lines


def from_environment(variables, prefix):
    values = {}
    for name, value in variables.items():
        if not name.startswith(prefix) or name == prefix:
            continue
        key = name[len(prefix):].lower()
        values[key] = value
    return values


def deep_merge(base, extra):
    merged = dict(base)
    for key, value in extra.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = deep_merge(merged[key], value)
        else:
            merged[key] = value
    return merged
