# Arithmetic with + - * / and brackets.

PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2}


def scan(text):
    tokens = []
    number = ""
    for char in text + " ":
        if char.isdigit() or char == ".":
            number += char
        elif number:
            tokens.append(float(number))
            number = ""
        if char in "+-*/()":
            tokens.append(char)
    return tokens


def should_pop(stack, operator):
    if not stack or stack[-1] == "(":
        return False
    return PRECEDENCE[stack[-1]] >= PRECEDENCE[operator]


def close_bracket(stack, output):
    while stack and stack[-1] != "(":
        output.append(stack.pop())
    if not stack:
        raise ValueError("unexpected )")
    stack.pop()


def place_operator(token, stack, output):
    if token == "(":
        stack.append(token)
    elif token == ")":
        close_bracket(stack, output)
    else:
        while should_pop(stack, token):
            output.append(stack.pop())
        stack.append(token)


def to_postfix(tokens):
    output = []
    stack = []
    for token in tokens:
        if isinstance(token, float):
            output.append(token)
        else:
            place_operator(token, stack, output)
    if "(" in stack:
        raise ValueError("missing )")
    return output + stack[::-1]


def apply(operator, left, right):
    if operator == "+":
        return left + right
    if operator == "-":
        return left - right
    if operator == "*":
        return left * right
    if right == 0:
        raise ZeroDivisionError("division by zero")
    return left / right


def run_postfix(postfix):
    stack = []
    for token in postfix:
        if isinstance(token, float):
            stack.append(token)
            continue
        if len(stack) < 2:
            raise ValueError("operator without operands")
        right = stack.pop()
        stack.append(apply(token, stack.pop(), right))
    return stack


def calculate(text):
    stack = run_postfix(to_postfix(scan(text)))
    if len(stack) != 1:
        raise ValueError("not one expression")
    return stack[0]
