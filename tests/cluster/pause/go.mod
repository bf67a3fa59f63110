module leatworks/pause

go 1.24.0
