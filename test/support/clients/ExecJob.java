// A job on pgjdbc that knows its database by JDBC_DATABASE_URL alone: a batch, two connections, a cancelled statement.
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;

public class ExecJob {
  public static void main(String[] arguments) throws Exception {
    String url = System.getenv("JDBC_DATABASE_URL");
    try (Connection connection = DriverManager.getConnection(url); Statement statement = connection.createStatement()) {
      statement.execute("create temp table lines (id int, item text)");
      try (PreparedStatement insert = connection.prepareStatement("insert into lines values (?, ?)")) {
        for (int n = 0; n < 500; n++) {
          insert.setInt(1, n);
          insert.setString(2, "item " + n);
          insert.addBatch();
        }
        check(insert.executeBatch().length == 500, "the batch");
      }
      Thread canceller = new Thread(() -> cancelUntilDone(statement));
      canceller.start();
      try {
        statement.execute("select pg_sleep(60)");
        check(false, "the cancellation");
      } catch (SQLException error) {
        check("57014".equals(error.getSQLState()), error.getMessage());
      }
      done = true;
      canceller.join();
      try (Connection second = DriverManager.getConnection(url)) {
        check(second.isValid(5), "a second connection");
      }
      try (ResultSet result = statement.executeQuery("select count(*), current_user from lines")) {
        result.next();
        check(result.getInt(1) == 500, "rows after a cancelled statement");
        System.out.println(result.getString(2));
      }
    }
  }

  private static volatile boolean done = false;

  /** A cancellation that comes before the statement does nothing. */
  private static void cancelUntilDone(Statement statement) {
    try {
      while (!done) {
        Thread.sleep(50);
        statement.cancel();
      }
    } catch (SQLException | InterruptedException error) {
      error.printStackTrace();
      System.exit(1);
    }
  }

  private static void check(boolean holds, String what) {
    if (!holds) throw new IllegalStateException(what);
  }
}
