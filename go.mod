module github.com/secmask/go-redisproto

go 1.23
