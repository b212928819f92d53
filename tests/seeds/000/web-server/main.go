package main

import (
	"fmt"
	"log"
	"net/http"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "Hello from a web server in Go")
	})
	log.Fatal(http.ListenAndServe(":8000", nil))
}
