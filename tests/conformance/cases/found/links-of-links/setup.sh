mkdir t && cd t && ln -s to link && ln link link2 && mkfifo pipe && ln pipe pipe2
tar -cf ../links.tar --sort=name --mtime=@1700000000 --owner=3 --group=4 --numeric-owner . && cd .. && rm -r t
