// Counts the links of the page that the environment variable `url` names.
package main

import (
	"encoding/json"
	"log"
	"net/http"
	"os"
	"strings"

	"golang.org/x/net/html"
)

type count struct {
	Internal int `json:"internal"`
	External int `json:"external"`
}

func (c *count) visit(node *html.Node) {
	if node.Type == html.ElementNode && node.Data == "a" {
		for _, attribute := range node.Attr {
			if attribute.Key != "href" {
				continue
			}
			if strings.HasPrefix(attribute.Val, "http") {
				c.External++
			} else {
				c.Internal++
			}
		}
	}
	for child := node.FirstChild; child != nil; child = child.NextSibling {
		c.visit(child)
	}
}

func main() {
	answer, err := http.Get(os.Getenv("url"))
	if err != nil {
		log.Fatal(err)
	}
	defer answer.Body.Close()
	page, err := html.Parse(answer.Body)
	if err != nil {
		log.Fatal(err)
	}
	var links count
	links.visit(page)
	json.NewEncoder(os.Stdout).Encode(links)
}
