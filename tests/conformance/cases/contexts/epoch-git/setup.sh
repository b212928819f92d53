git init -q -b main ../work; cd ../work
echo root > root.txt; git add .; git commit -qm one
mkdir -p ../git; git clone -q --bare . ../git/r.git
