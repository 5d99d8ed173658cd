# Apache Kafka for scripts/services, which reads this file: kafka_start, then kafka_wait. No distribution is unpacked:
# one node is its jars, which Maven copies once, and two classes in them, one that formats the folder and one that
# serves it.

kafka_version=$(sed -n 's|.*<kafka.version>\(.*\)</kafka.version>.*|\1|p' "$here/kafka/pom.xml")
kafka_problem=

# The first Java that is new enough, of those that there are.
kafka_find_java() {
    for java in "${JAVA_HOME:-}/bin/java" "$(command -v java)" /usr/lib/jvm/*/bin/java; do
        java_version=$("$java" -version 2>&1 | sed -n 's/.* version "\([^"]*\)".*/\1/p') || continue
        [ "0${java_version%%[!0-9]*}" -lt 17 ] || return 0
    done
    return 1
}

# Java and the jars; where they are not to be had, kafka_problem says why.
kafka_prepare() {
    # A release of Debian has one or the other.
    kafka_find_java || install_packages openjdk-17-jre-headless || install_packages openjdk-21-jre-headless || true
    kafka_find_java || {
        kafka_problem="there is no Java 17 or newer, and it could not be installed: install a JDK"
        return 1
    }

    # The jars are complete when the copy of the pom is beside them, and right when it is still the same.
    kafka_libs=$cache/kafka-$kafka_version
    ! cmp -s "$here/kafka/pom.xml" "$kafka_libs/pom.xml" || return 0
    command -v mvn >/dev/null || install_packages maven || {
        kafka_problem="there is no Maven (mvn), and it could not be installed: install the package maven"
        return 1
    }
    say "copying the jars of Apache Kafka $kafka_version with Maven"
    local copy
    copy=$(mktemp -d "$cache/copy.XXXXXX")
    if ! mvn --batch-mode --update-snapshots --file "$here/kafka/pom.xml" dependency:copy-dependencies \
        -DincludeScope=runtime "-DoutputDirectory=$copy" >"$dir/maven.log" 2>&1; then
        rm -rf "$copy"
        local refusal
        refusal=$(grep -m 1 -oE 'Could not (transfer|find) .*' "$dir/maven.log") || fail "Maven failed" "$dir/maven.log"
        kafka_problem="the registry of Maven artifacts does not give Apache Kafka $kafka_version: ${refusal/ (http*)/}"
        kafka_refused=1
        return 1
    fi
    cp "$here/kafka/pom.xml" "$copy" && rm -rf "$kafka_libs" && mv "$copy" "$kafka_libs" ||
        fail "$kafka_libs could not be written"
}

kafka_start() {
    kafka_port=$(free_port 1)
    if ! kafka_prepare; then
        if compose_start kafka "$kafka_port"; then
            kafka_problem=
            return
        fi
        [ "${SHRINKD_REQUIRE_KAFKA:-}" != 1 ] || [ -n "${kafka_refused:-}" ] ||
            fail "SHRINKD_REQUIRE_KAFKA=1, but $kafka_problem"
        say "NO APACHE KAFKA: $kafka_problem"
        return 0
    fi

    local home=$dir/kafka controller
    kafka_sasl_port=$(free_port 3)
    controller=127.0.0.1:$(free_port 2)
    mkdir "$home"
    cat "$here/kafka/server.properties" - >"$home/server.properties" <<PROPERTIES
listeners=PLAINTEXT://127.0.0.1:$kafka_port,SASL_PLAINTEXT://127.0.0.1:$kafka_sasl_port,CONTROLLER://$controller
controller.quorum.voters=1@$controller
log.dirs=$home/data
PROPERTIES
    # Tests restart it and give it little to do: what the second compiler and more threads cost does not come back.
    local jvm=("$java" -Xmx512m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC "-Dlog4j2.configurationFile=$here/kafka/log4j2.properties" -cp "$kafka_libs/*")
    "${jvm[@]}" kafka.tools.StorageTool format --cluster-id=shrinkd-test-cluster-0 --config "$home/server.properties" \
        >"$dir/kafka.log" 2>&1 || fail "Kafka's folder could not be formatted" "$dir/kafka.log"
    say "starting Apache Kafka $kafka_version on 127.0.0.1:$kafka_port"
    start_process kafka "${jvm[@]}" kafka.Kafka "$home/server.properties"
}

kafka_wait() {
    if [ -n "$kafka_problem" ]; then
        echo "unset SHRINKD_TEST_KAFKA" >>"$dir/env"
        cat >>"$dir/summary" <<LOUD
  !!! THE KAFKA TESTS RAN ON THE IN-PROCESS MOCK BROKER, NOT ON APACHE KAFKA,
  !!! because $kafka_problem
LOUD
        return
    fi
    echo "export SHRINKD_TEST_KAFKA=127.0.0.1:$kafka_port" >>"$dir/env"
    local version="(Docker's, of docker-compose.yml)"
    if [ -e "$dir/kafka.pid" ]; then
        wait_for kafka kafka_answers
        echo "export SHRINKD_TEST_KAFKA_SASL=127.0.0.1:$kafka_sasl_port" >>"$dir/env"
        version="$kafka_version (Java $java_version)"
    fi
    echo "  real Apache Kafka $version on 127.0.0.1:$kafka_port" >>"$dir/summary"
}

# The port is open before the controller lets the broker take topics; the line comes after both.
kafka_answers() { grep -q 'Kafka Server started' "$dir/kafka.log" && (exec 3<>"/dev/tcp/127.0.0.1/$kafka_port"); }
