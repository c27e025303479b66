# Who may do what: roles that inherit from other roles.


class Access:
    def __init__(self):
        self.grants = {}
        self.parents = {}
        self.roles = {}
        self.denied = set()

    def define(self, role, actions, parent=None):
        if parent is not None and parent not in self.grants:
            raise ValueError("unknown role: " + parent)
        self.grants[role] = set(actions)
        self.parents[role] = parent

    def assign(self, user, role):
        if role not in self.grants:
            raise ValueError("unknown role: " + role)
        roles = self.roles.setdefault(user, [])
        if role not in roles:
            roles.append(role)

    def role_allows(self, role, action):
        while role is not None:
            if action in self.grants[role] or "*" in self.grants[role]:
                return True
            role = self.parents[role]
        return False

    def allows(self, user, action, owner=None):
        if (user, action) in self.denied:
            return False
        if owner is not None and owner == user:
            return True
        for role in self.roles.get(user, []):
            if self.role_allows(role, action):
                return True
        return False

    def deny(self, user, action, lift=False):
        if lift:
            self.denied.discard((user, action))
        else:
            self.denied.add((user, action))

    def users_with(self, action):
        users = []
        for user in sorted(self.roles):
            if self.allows(user, action):
                users.append(user)
        return users

    def revoke(self, user, role):
        roles = self.roles.get(user, [])
        if role not in roles:
            return False
        roles.remove(role)
        if not roles:
            del self.roles[user]
        return True


def mode_text(mode):
    text = ""
    for shift in (6, 3, 0):
        bits = mode >> shift & 7
        text += "r" if bits & 4 else "-"
        text += "w" if bits & 2 else "-"
        text += "x" if bits & 1 else "-"
    return text
