# Checking forms; every check returns a list of (field, problem) pairs.


def check_required(form, fields):
    problems = []
    for field in fields:
        value = form.get(field)
        if value is None or value == "":
            problems.append((field, "is required"))
    return problems


def check_length(form, field, shortest=0, longest=None):
    value = form.get(field)
    if value is None:
        return []
    if len(value) < shortest:
        return [(field, "is too short")]
    if longest is not None and len(value) > longest:
        return [(field, "is too long")]
    return []


def check_range(form, field, low, high):
    value = form.get(field)
    if value is None or low <= value <= high:
        return []
    side = "below" if value < low else "above"
    return [(field, "is %s the allowed range" % side)]


def is_email(text):
    name, mark, host = text.partition("@")
    if not mark or not name or "@" in host:
        return False
    if host.startswith(".") or host.endswith("."):
        return False
    return "." in host and " " not in text


def luhn_valid(number):
    total = 0
    for index, char in enumerate(reversed(number)):
        if not char.isdigit():
            return False
        digit = int(char)
        if index % 2 == 1:
            digit = digit * 2 - 9 if digit > 4 else digit * 2
        total += digit
    return len(number) > 1 and total % 10 == 0


def password_score(password):
    score = 0
    if len(password) >= 12:
        score += 2
    for kind in (str.islower, str.isupper, str.isdigit):
        if any(kind(char) for char in password):
            score += 1
    return score


def check_same(form, first, second):
    if form.get(first) == form.get(second):
        return []
    return [(second, "differs from " + first)]


def check_signup(form):
    problems = check_required(form, ["email", "password"])
    problems += check_length(form, "password", 8, 100)
    problems += check_same(form, "password", "repeat")
    if form.get("email") and not is_email(form["email"]):
        problems.append(("email", "is not an address"))
    return problems


def by_field(problems):
    grouped = {}
    for field, problem in problems:
        grouped.setdefault(field, []).append(problem)
    return grouped
