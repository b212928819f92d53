echo f > f; chmod 1777 f; echo g > g; chmod 644 g; mkdir d; chmod 1755 d
