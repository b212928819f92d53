// Package greeting is what the client of the documents needs from elsewhere.
package greeting

// Hello greets someone.
func Hello(name string) string {
	return "Hello, " + name + "!"
}
