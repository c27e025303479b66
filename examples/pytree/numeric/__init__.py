# Numbers: vectors, matrices, statistics and primes.
