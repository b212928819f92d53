mkdir -p d/sub
echo f > d/sub/file
echo g > d/g
ln -s d link
