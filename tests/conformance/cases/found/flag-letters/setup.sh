echo 1 > é
echo 2 > Ã©
echo 3 > x
echo 4 > à
printf 5 > "$(printf "\303\203")"
printf 'Dockerfile\n.dockerignore\n' > .dockerignore
