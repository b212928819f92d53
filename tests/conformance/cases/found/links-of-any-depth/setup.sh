mkdir -p lib/x real/sub
echo a > real/a.so.1
echo q > real/sub/q
ln -s ../../real/a.so.1 lib/x/a.so
ln -s ../../real/sub lib/x/d
