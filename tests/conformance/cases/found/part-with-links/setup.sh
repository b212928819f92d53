echo a > a
echo b > b
ln -s b good
mkdir sub
ln -s nowhere sub/lost
ln -s ../b sub/good
printf 'Dockerfile\n.dockerignore\n' > .dockerignore
