# Header fields of requests and answers.


def normal_name(name):
    parts = []
    for part in name.strip().split("-"):
        parts.append(part[:1].upper() + part[1:].lower())
    return "-".join(parts)


def parse_headers(lines):
    headers = {}
    for line in lines:
        if not line:
            break
        name, mark, value = line.partition(":")
        if not mark or name != name.strip():
            raise ValueError("bad header line: " + line)
        add_header(headers, name, value.strip())
    return headers


def add_header(headers, name, value):
    name = normal_name(name)
    if name in headers and name != "Content-Length":
        headers[name] += ", " + value
    else:
        headers[name] = value


def get_header(headers, name, default=None):
    value = headers.get(normal_name(name))
    if value is None:
        return default
    return value


def content_length(headers, limit=1048576):
    text = get_header(headers, "content-length", "0")
    if not text.isdigit():
        raise ValueError("length is not a number")
    length = int(text)
    if length > limit:
        raise ValueError("body is too large")
    return length


def parse_quality(item):
    name, _, rest = item.partition(";")
    key, _, value = rest.partition("=")
    if key.strip() != "q":
        return name.strip(), 1.0
    return name.strip(), float(value)


def preferred(accept, offered):
    best = None
    best_quality = 0.0
    for item in accept.split(","):
        name, quality = parse_quality(item)
        if name == "*" and offered:
            name = offered[0]
        if name in offered and quality > best_quality:
            best, best_quality = name, quality
    return best


def parse_cookies(text):
    cookies = {}
    for part in text.split(";"):
        name, mark, value = part.strip().partition("=")
        if mark and name not in cookies:
            cookies[name] = value
    return cookies


def keeps_open(headers, version):
    wish = get_header(headers, "connection", "").lower()
    if wish == "close":
        return False
    return version >= 11 or wish == "keep-alive"
