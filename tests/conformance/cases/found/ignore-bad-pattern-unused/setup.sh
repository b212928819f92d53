echo 'bin\obj' > .dockerignore
