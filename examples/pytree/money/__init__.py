# Amounts in whole cents and the sums made from them.
