mkdir d
echo f > d/file
ln -s d link
