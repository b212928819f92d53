echo a > a && echo b > b && touch -d "2020-01-02 03:04:05.123456789" a b
echo a > whole-a && echo b > whole-b && touch -d "2020-01-02 03:04:05" whole-a whole-b
