mkdir -p Dockerfile.dockerignore .dockerignore d
echo x > d/x
