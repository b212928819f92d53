echo a > a
ln -s nowhere lost
