# Divisors, primes and remainders of whole numbers.


def gcd(left, right):
    left, right = abs(left), abs(right)
    while right:
        left, right = right, left % right
    return left


def lcm(left, right):
    if left == 0 or right == 0:
        return 0
    return abs(left * right) // gcd(left, right)


def is_prime(number):
    if number < 2:
        return False
    divisor = 2
    while divisor * divisor <= number:
        if number % divisor == 0:
            return False
        divisor += 1
    return True


def sieve(limit):
    marked = [True] * (limit + 1)
    primes = []
    for number in range(2, limit + 1):
        if not marked[number]:
            continue
        primes.append(number)
        for multiple in range(number * number, limit + 1, number):
            marked[multiple] = False
    return primes


def factorize(number):
    factors = {}
    divisor = 2
    while divisor * divisor <= number:
        while number % divisor == 0:
            factors[divisor] = factors.get(divisor, 0) + 1
            number //= divisor
        divisor += 1
    if number > 1:
        factors[number] = factors.get(number, 0) + 1
    return factors


def divisor_count(number):
    count = 1
    for exponent in factorize(number).values():
        count *= exponent + 1
    return count


def mod_power(base, exponent, modulus):
    result = 1 % modulus
    base %= modulus
    while exponent > 0:
        if exponent & 1:
            result = result * base % modulus
        base = base * base % modulus
        exponent >>= 1
    return result


def digits_of(number, base=10):
    if number == 0:
        return [0]
    digits = []
    while number > 0:
        number, digit = divmod(number, base)
        digits.insert(0, digit)
    return digits


def is_palindrome(number, base=10):
    if number < 0:
        return False
    digits = digits_of(number, base)
    return digits == digits[::-1]
