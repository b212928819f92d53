echo f > f; chmod 6741 f
