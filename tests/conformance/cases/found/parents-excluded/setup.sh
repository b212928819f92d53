mkdir d; echo b > d/b.txt; echo c > d/c.txt
