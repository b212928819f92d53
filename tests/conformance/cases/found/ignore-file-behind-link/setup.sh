mkdir -p ../n ../m
echo x > ../outside
for dir in . ../n ../m; do echo x > $dir/x; echo y > $dir/y; echo y > $dir/real; done
ln -s ../outside .dockerignore
ln -s "$PWD/../outside" ../n/.dockerignore
ln -s /real ../m/.dockerignore
